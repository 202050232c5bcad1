"""Heads and neurons as branches: do they divide features between them, and does a symmetry of the data exchange them?"""
