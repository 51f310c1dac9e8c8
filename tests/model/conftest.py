from authors import small as small
