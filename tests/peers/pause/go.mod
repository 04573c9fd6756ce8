module peer/pause

go 1.26
