"""Training of a model's two parts, the prior and the refiner around it, and the calibration of what they state.

`prior` and `refiner` are the trainings; each reads from top to bottom: setup, data, resume, loop, calibration.

options, recipe     what is asked for, on the command line and in a TOML file
prepare             device, seeds and state file, the same for every training
data                pairs by number, of `simulate`, `folders` (the user's data) and `degradation`; see `pair`, `batch`
loop                batch, loss, step, moving average, report; it knows no physics
process_group       several processes that train one model
calibrate, trust    ERR and TRUST made true on frames whose truth is known (`simulated_frame`)
"""
