"""How much a picture, sound or video may ask of the machine, checked before it is decoded. All bounds stand here.

They are far above what cameras, phones and recorders make. A file of a few hundred bytes can claim far more.
"""

from __future__ import annotations

MEGAPIXEL = 1_000_000

_LARGEST_JPEG = 220 * MEGAPIXEL
PICTURE_PIXELS = {
    "JPEG": _LARGEST_JPEG,
    "MPO": _LARGEST_JPEG,
    "HEIF": 64 * MEGAPIXEL,
    "AVIF": 64 * MEGAPIXEL,
    "WEBP": 64 * MEGAPIXEL,
}
"""By Pillow's name of the format. The largest photographs of phones are JPEGs of 200 megapixels, which are decoded at
half their size. Decoders of the last three hold a picture several times; phones write 50 megapixels. For the others
Pillow's own limit holds, 179 megapixels."""
LARGE_PICTURE_PIXELS = 89 * MEGAPIXEL
"""From here on a picture is made smaller, because the model sees 3 megapixels at most. Pillow warns from about here."""
FRAME_PIXELS = 40 * MEGAPIXEL
"""Of a video's frame. 8K has 33 megapixels."""

SOUND_TRACKS = 32
"""Of one file. Tracks are compared by what they hold, so all of them are decoded for a while."""
LONGEST_GAP_SECONDS = 6 * 3600
"""Without sound in the middle of a recording; a longer one is a wrong time stamp."""

DOWNLOAD_BYTES = 512 * 2**20
DOWNLOAD_WAIT_SECONDS = 30
"""Without a single byte; also for the whole answer up to the end of its header."""
DOWNLOAD_SECONDS = 15 * 60
"""For the whole of it."""
DOWNLOAD_BYTES_PER_SECOND = 4 * 2**10
"""On average, once `DOWNLOAD_WAIT_SECONDS` have passed: a slow line has more, a server that holds us up less."""

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF")
"""Pillow's names of the formats that pictures are read in. It knows 40 more; one of them runs Ghostscript."""

CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,apng,asf,au,avi,caf,dts,dv,eac3,flac,flv,gif,h261,h263,h264,hevc,ivf,loas,m4v,"
    "matroska,webm,mjpeg,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nut,obu,ogg,rm,tak,truehd,tta,voc,"
    "vvc,w64,wav,wtv,wv"
)
"""FFmpeg's names of the containers that sound and video are read from. Playlists, which open other files or wait for
them, are not among them."""
