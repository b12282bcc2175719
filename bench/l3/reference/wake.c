// Two threads that wake each other by futex, each asleep before: what a wake-up round trip costs on this
// machine without anything of ours. Prints the round trips' percentiles in microseconds as JSON.
//
//   wake ROUND_TRIPS PAUSE_US [apart]
//
// "apart" holds the two to different CPUs; else they are where the scheduler puts them.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint32_t there, back;
static uint32_t count;

static double now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void ring(uint32_t* bell) {
  __atomic_fetch_add(bell, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_for_ring(uint32_t* bell, uint32_t seen) {
  while (__atomic_load_n(bell, __ATOMIC_SEQ_CST) == seen) {
    syscall(SYS_futex, bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  }
}

static void* answer(void* unused) {
  for (uint32_t i = 0; i < count; i++) {
    wait_for_ring(&there, i);
    ring(&back);
  }
  return unused;
}

static void hold_to(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread, sizeof(set), &set);
}

static int compare(const void* a, const void* b) {
  const double difference = *(const double*)a - *(const double*)b;
  return difference < 0 ? -1 : difference > 0;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  count = (uint32_t)atoi(argv[1]);
  const double pause_us = atof(argv[2]);
  double* trips = calloc(count, sizeof(double));
  pthread_t thread;
  if (trips == NULL || pthread_create(&thread, NULL, answer, NULL) != 0) return 1;
  if (argc == 4 && strcmp(argv[3], "apart") == 0) {
    hold_to(pthread_self(), 0);
    hold_to(thread, 1);
  }
  for (uint32_t i = 0; i < count; i++) {
    for (const double until = now_us() + pause_us; now_us() < until;) {
    }
    const double begun = now_us();
    ring(&there);
    wait_for_ring(&back, i);
    trips[i] = now_us() - begun;
  }
  qsort(trips, count, sizeof(double), compare);
  printf("{\"p50\":%.2f,\"p99\":%.2f}\n", trips[count / 2], trips[(uint64_t)count * 99 / 100]);
  return 0;
}
