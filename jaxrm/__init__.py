"""jaxrm: generalizable reward models in JAX."""
