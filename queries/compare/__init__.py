"""Labels of several pipelines compared over the stars that they share."""
