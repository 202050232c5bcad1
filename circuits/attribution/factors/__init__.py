"""What attribution multiplies, as factors: how far writers changed, and how readers pull on the metric."""
