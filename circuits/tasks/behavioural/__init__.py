"""What a model does on minimal pairs and facts, item by item, beside baselines."""
