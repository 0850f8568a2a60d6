"""The known physics: PSFs, pixel integration, detectors, and the step that holds an image to its data."""
