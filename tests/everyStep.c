/* Halts a program before everything it does to files under a folder; for everyStepTest.py.
 *
 * Preloaded, it stands between the program and the C library. steps_begin says under which folder
 * (root), and from which step on (full; 0: none) what needs room fails with an error number, the
 * first write after half of it. Before a step, and where one is half written, a line is sent to a
 * socket (STEP\tPATH; "torn", and "read" of a .part file, are no steps) and an answer awaited.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[4096];
static long full, step;
static int number, talk = -1, shortened;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

void steps_begin(const char *folder, long full_, int number_, int talk_)
{
    strncpy(root, folder, sizeof root - 1);
    full = full_, number = number_, talk = talk_, step = 0;
}

static int ours(const char *path) { return root[0] && !strncmp(path, root, strlen(root)); }

static void tell(const char *what, const char *path)
{
    char line[8192];
    int length = snprintf(line, sizeof line, "%s\t%s\n", what, path);
    send(talk, line, length, MSG_NOSIGNAL);
    recv(talk, line, 1, 0);
}

/* Counts a step; returns 1 where the disk is full. */
static int reached(const char *what, const char *path)
{
    int saved = errno;
    pthread_mutex_lock(&one_at_a_time);
    int is_full = ++step >= full && full;
    tell(what, path);
    pthread_mutex_unlock(&one_at_a_time);
    errno = saved;
    return is_full;
}

static int is_ours(int fd, char *path)
{
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root[0] ? readlink(link, path, 4095) : -1;
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
    REAL(name); \
    va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
    if (!ours(path)) return real(path, flags, mode); \
    const char *end = strrchr(path, '.'); \
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT))) { \
        if (end && !strcmp(end, ".part")) tell("read", path); \
    } else if (reached("open", path) && flags & O_CREAT && access(path, F_OK)) { \
        errno = number; return -1; \
    } \
    return real(path, flags, mode); \
}
OPEN(open)
OPEN(open64)

#define TRUNCATE(name, type) \
int name(int fd, type size) \
{ \
    REAL(name); char path[4096]; struct stat about; \
    if (is_ours(fd, path) && reached("truncate", path) && !fstat(fd, &about) \
        && size > about.st_size) { errno = number; return -1; } \
    return real(fd, size); \
}
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* PART(from, n) writes so many bytes. */
#define WRITING(name) \
    REAL(name); char path[4096]; \
    if (!is_ours(fd, path)) return PART(0, length); \
    size_t half = length / 2; \
    if (reached("write", path)) { \
        if (!shortened++ && half) return PART(0, half); \
        errno = number; return -1; \
    } \
    if (!half) return PART(0, length); \
    ssize_t first = PART(0, half), rest; \
    if (first != (ssize_t)half) return first; \
    tell("torn", path); \
    rest = PART(half, length - half); \
    return rest < 0 ? first : first + rest;

#define PART(from, n) real(fd, (const char *)data + (from), n)
ssize_t write(int fd, const void *data, size_t length) { WRITING(write) }
#undef PART
#define PART(from, n) real(fd, (const char *)data + (from), n, place + (from))
ssize_t pwrite(int fd, const void *data, size_t length, off_t place) { WRITING(pwrite) }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t place) { WRITING(pwrite64) }
#undef PART

/* Nothing here loses its power, and waiting for a disk takes long. */
int fsync(int fd)
{
    REAL(fsync); char path[4096];
    if (!is_ours(fd, path)) return real(fd);
    if (reached("fsync", path) && step == full) { errno = number; return -1; }
    return 0;
}

int rename(const char *old, const char *path)
{
    REAL(rename);
    char both[8192];
    snprintf(both, sizeof both, "%s\t%s", old, path);
    if (ours(path)) reached("rename", both);
    return real(old, path);
}

int link(const char *old, const char *path)
{
    REAL(link);
    if (ours(path)) reached("link", path);
    return real(old, path);
}

int unlink(const char *path)
{
    REAL(unlink);
    if (ours(path)) reached("unlink", path);
    return real(path);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    if (ours(path) && reached("mkdir", path)) { errno = number; return -1; }
    return real(path, mode);
}
