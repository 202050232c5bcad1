"""What a pronoun refers to, read off how like it is to the words before it."""
