"""Pictures of what lenses and neurons read."""
