"""The yardstick: tasks, model, training, gates and audit. It knows nothing of the agent."""
