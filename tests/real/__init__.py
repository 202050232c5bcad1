"""On a real pretrained model: `make real`."""
