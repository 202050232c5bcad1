"""From attention patterns to words and relations."""
