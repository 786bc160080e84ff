/:
2 drwxr-xr-x  2 0 0  0 2001-09-09 01:46 dir
3 -rw-r--r--  1 0 0 14 2001-09-09 01:46 hello.txt
4 lrwxrwxrwx  1 0 0  9 2001-09-09 01:46 link -> hello.txt

/dir:
