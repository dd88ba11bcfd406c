"""DICOM intake: headers to series, series to an image in true geometry."""
