"""A well-tuned FastAPI implementation of Ward's measured operations. For measurement beside Ward; not a product."""
