"""What `vaedoctor anatomy` draws and names: stations, outputs, the model's family."""
