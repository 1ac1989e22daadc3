"""Running a plan: clock, meter, scheduler, report. Knows no framework."""
