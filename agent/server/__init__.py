"""A model behind any server that speaks chat.completions: its address, the way of a question, what came back."""
