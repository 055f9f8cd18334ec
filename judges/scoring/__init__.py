"""Answer metrics per problem type."""
