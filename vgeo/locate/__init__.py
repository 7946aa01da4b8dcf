"""Your own photos to latitude, longitude and confidence."""
