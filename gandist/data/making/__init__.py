"""From pictures to indexed shards and a recipe: `gandist prepare` and `gandist new`. Import from the modules."""
