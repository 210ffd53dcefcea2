"""Diagnosis of failing rows from recorded runs."""
