"""What opening does after a crash: inspect, judge, recover, report. Start reading at `inspect`."""
