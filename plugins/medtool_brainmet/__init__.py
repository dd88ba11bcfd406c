"""Brain metastases on head CT: one answer per study."""
