"""Where in the layers a sentence that is wrong stands out (Li et al. 2021)."""
