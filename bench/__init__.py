"""What jaxml measures of itself and of its peers: `python -m bench.<chapter>`."""
