/*
 * Preloaded into a process, tells in order what it does to files whose path begins with $WRITE_LOG_FOLDER: one line on
 * descriptor $WRITE_LOG_FD for each write ("write PATH OFFSET BYTES") and sync ("sync PATH"). A write to a file that was
 * opened with O_DSYNC or O_SYNC is "write" and then "sync" of that write alone: "synced PATH OFFSET BYTES".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096

static char paths[DESCRIPTORS][256];
static char is_synchronous[DESCRIPTORS];

static int log_fd(void) {
  const char *text = getenv("WRITE_LOG_FD");
  return text ? atoi(text) : -1;
}

static void say(const char *what, int fd, long offset, long bytes) {
  char line[512];
  int length;
  if (fd < 0 || fd >= DESCRIPTORS || paths[fd][0] == 0) return;
  length = snprintf(line, sizeof line, "%s %s %ld %ld\n", what, paths[fd], offset, bytes);
  if (write(log_fd(), line, (size_t)length) != length) abort();
}

static int opened(int fd, const char *path, int flags) {
  const char *folder = getenv("WRITE_LOG_FOLDER");
  if (fd < 0 || fd >= DESCRIPTORS) return fd;
  paths[fd][0] = 0;
  if (folder && strncmp(path, folder, strlen(folder)) == 0) snprintf(paths[fd], sizeof paths[fd], "%s", path);
  is_synchronous[fd] = (flags & O_DSYNC) != 0;
  return fd;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                       \
  int name(const char *path, int flags, ...) {                           \
    va_list arguments;                                                   \
    mode_t mode;                                                         \
    va_start(arguments, flags);                                          \
    mode = va_arg(arguments, mode_t);                                    \
    va_end(arguments);                                                   \
    return opened(REAL(name)(path, flags, mode), path, flags);           \
  }
OPEN(open)
OPEN(open64)

static long wrote(int fd, long bytes, long offset) {
  if (bytes >= 0) say(is_synchronous[fd] ? "synced" : "write", fd, offset, bytes);
  return bytes;
}

ssize_t pwrite(int fd, const void *buffer, size_t count, off_t offset) {
  return wrote(fd, REAL(pwrite)(fd, buffer, count, offset), offset);
}
ssize_t pwrite64(int fd, const void *buffer, size_t count, off64_t offset) {
  return wrote(fd, REAL(pwrite64)(fd, buffer, count, offset), offset);
}
ssize_t pwritev(int fd, const struct iovec *buffers, int count, off_t offset) {
  return wrote(fd, REAL(pwritev)(fd, buffers, count, offset), offset);
}
ssize_t pwritev64(int fd, const struct iovec *buffers, int count, off64_t offset) {
  return wrote(fd, REAL(pwritev64)(fd, buffers, count, offset), offset);
}
ssize_t writev(int fd, const struct iovec *buffers, int count) {
  long offset = lseek(fd, 0, SEEK_CUR);
  return wrote(fd, REAL(writev)(fd, buffers, count), offset);
}

int fdatasync(int fd) {
  int result = REAL(fdatasync)(fd);
  if (result == 0) say("sync", fd, 0, 0);
  return result;
}
int fsync(int fd) {
  int result = REAL(fsync)(fd);
  if (result == 0) say("sync", fd, 0, 0);
  return result;
}
