"""ringtun's own merge module: what a Windows product needs to have the Wintun driver.

The module puts a ``wintun.dll`` that the packager supplies, of which `wintun` verifies who signed
it, where all products that have the module share it; and when the last of them goes, its actions,
which `actions` compiles, have it delete the driver. `module` says what is in it.
"""
