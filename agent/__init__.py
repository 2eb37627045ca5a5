"""The loop: read history, propose, patch, check, evaluate, reflect, record. No torch in here."""
