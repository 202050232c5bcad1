"""What each command asks: the types that a command and its report share; nothing heavy is imported before it is needed."""
