"""Planning: how a picture is cut, which runs a matrix needs, how they are divided over CI shards."""
