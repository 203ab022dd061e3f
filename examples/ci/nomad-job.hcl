# A batch job: each of its four allocations runs one part of the suite.
job "machines" {
  type = "batch"

  group "part" {
    count = 4

    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "vmoon" {
      driver = "docker"

      config {
        image   = "vmoon-tests"
        command = "sh"
        args = [
          "-c",
          "vmoon test /tests --jobs auto --shard $((NOMAD_ALLOC_INDEX + 1))/4",
        ]

        devices = [
          { host_path = "/dev/kvm", container_path = "/dev/kvm" },
        ]
      }

      resources {
        cores  = 2
        memory = 2048
      }
    }
  }
}
