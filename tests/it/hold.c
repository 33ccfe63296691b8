/* hold THREADS EXECS SECONDS: threads keep the memory map locked for writing while others try to execute with 255
 * arguments, whose reading wants that lock some hundred times. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const long length = 500L << 20;
static char *memory, *arguments[256];

static void *hold(void *none) {
  for (;;) {
    mprotect(memory, length, PROT_READ);
    mprotect(memory, length, PROT_READ | PROT_WRITE);
  }
  return none;
}

static void *execute(void *none) {
  for (;;) execve("/nonexistent", arguments, environ);
  return none;
}

static void many(int count, void *(*work)(void *)) {
  pthread_t thread;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  while (count-- > 0) pthread_create(&thread, &small, work, NULL);
}

int main(int count, char **words) {
  if (count != 4) return 64;
  memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(memory, length, MADV_NOHUGEPAGE);
  memset(memory, 1, length);
  for (int i = 0; i < 255; i++) arguments[i] = "a";
  /* Before they make each thread's start slow, too. */
  write(1, "held\n", 5);
  many(atoi(words[2]), execute);
  many(atoi(words[1]), hold);
  sleep(atoi(words[3]));
  _exit(0);
}
