"""The known physics: point spread functions, pixel integration, detectors, and the step that holds an image to its data."""
