"""Istio's documents from text: one module per kind, and what they share. Only `kinds` is called from outside."""
