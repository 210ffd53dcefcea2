"""Planning: sharding of a picture, run graph of a matrix, division of a matrix over CI jobs."""
