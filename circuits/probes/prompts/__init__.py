"""Facts by typed prompts and by trained ones."""
