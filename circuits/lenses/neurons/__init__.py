"""Single neurons: what triggers them, what they write, what holding them does."""
