"""Your own classifier and your own pictures: weights from a file, pictures from a folder, boxes and maps out."""
