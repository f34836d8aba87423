"""A well-tuned FastAPI implementation of Ward's measured operations. It is for measurements only."""
