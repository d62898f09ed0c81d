"""Figures and the HTML report. The only package that imports matplotlib."""
