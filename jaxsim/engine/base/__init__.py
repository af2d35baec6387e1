"""What all of the engine rests on: arithmetic rounded as IEEE 754 says, random numbers, enums, checked fields.

Every module may import from here. Nothing here imports from another folder of the engine.
"""
