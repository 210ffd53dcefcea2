"""Records of attention and block outputs, made inside a rank."""
