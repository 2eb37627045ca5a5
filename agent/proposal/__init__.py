"""A proposal: found in the reply of a model or a person, read strictly, and applied to its parent's source."""
