"""Search methods: one file each, and the table that everything else reads."""
