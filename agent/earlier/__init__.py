"""Records of an earlier project: tables, insights and names as they were printed, made into entries."""
