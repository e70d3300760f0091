module example.com/sandwich-consumer

go 1.23
