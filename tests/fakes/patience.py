"""How long a test waits for something that must happen, before it says that it did not.

A machine that runs many things at once may take seconds for what takes milliseconds alone. Patience costs nothing
where all is well, and says nothing about how fast anything is: where time is what a test is about, it measures it.
"""

PATIENCE_S = 60.0
