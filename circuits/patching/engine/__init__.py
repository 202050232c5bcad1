"""The engine: many changed runs of one base run ride through the layers together."""
